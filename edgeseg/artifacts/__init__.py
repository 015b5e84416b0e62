"""What commands hand to each other: card, side-car, JSON documents, and how files are written."""
