"""Where results go: a window, a recording, files, lines of JSON."""
