"""A media server that takes H.264 at /live: ``python record_server.py PORT [USER PASSWORD [PEM]]``.

For the system's Python, with GStreamer's RTSP server. It asks for digest authentication if there
is a user, and speaks TLS if there is a file with certificate and key. It prints its port, then
the width, height and pixels (base64 of BGR) of each frame. It ends when its standard input does.
"""

import base64
import sys

from gst_rtsp import Gst, GstRtspServer, ask_for_login, make_server, serve

LAUNCH = (
    "( rtph264depay name=depay0 ! h264parse ! avdec_h264 ! videoconvert "
    "! video/x-raw,format=BGR ! appsink name=frames emit-signals=true sync=false )"
)


def show(sink):
    """Print a frame; its rows have no padding at widths of multiples of four."""
    sample = sink.emit("pull-sample")
    caps = sample.get_caps().get_structure(0)
    buffer = sample.get_buffer()
    pixels = buffer.extract_dup(0, buffer.get_size())
    size = f"{caps.get_value('width')} {caps.get_value('height')}"
    print(size, base64.b64encode(pixels).decode(), flush=True)
    return Gst.FlowReturn.OK


def configure(_factory, media):
    """Show the frames of a session."""
    media.get_element().get_by_name("frames").connect("new-sample", show)


def main():
    """Serve until standard input ends."""
    port, *login = sys.argv[1:]
    server, factory = make_server(port, LAUNCH)
    factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
    factory.connect("media-configure", configure)
    if login:
        ask_for_login(server, factory, *login)
    serve(server)


main()
