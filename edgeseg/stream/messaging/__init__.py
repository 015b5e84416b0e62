"""Messages about a stream to other machines, through a broker such as MQTT's."""

from __future__ import annotations

from edgeseg.stream.messaging.bus import Bus, Message, Patience
from edgeseg.stream.messaging.mqtt import Mqtt
from edgeseg.stream.messaging.publisher import Publisher, Publishing

__all__ = ["Bus", "Message", "Mqtt", "Patience", "Publisher", "Publishing"]
