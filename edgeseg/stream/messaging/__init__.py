"""Messages about a stream to other machines, through a broker such as MQTT's."""

from __future__ import annotations

from edgeseg.stream.messaging.bus import BrokerLimits, Bus, Message
from edgeseg.stream.messaging.mqtt import Mqtt
from edgeseg.stream.messaging.publisher import Publisher, Publishing

__all__ = ["BrokerLimits", "Bus", "Message", "Mqtt", "Publisher", "Publishing"]
