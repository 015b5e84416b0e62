"""A media server that takes H.264 at /live-0, /live-1, …: ``python3 media_server.py PORT COUNT``.

For the system's Python, with GStreamer's RTSP server. It prints its port, and ends when its
standard input does.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402


def main() -> None:
    """Serve until standard input ends."""
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(sys.argv[1])
    for number in range(int(sys.argv[2])):
        factory = GstRtspServer.RTSPMediaFactory()
        factory.set_launch("( rtph264depay name=depay0 ! h264parse ! fakesink sync=false )")
        factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
        server.get_mount_points().add_factory(f"/live-{number}", factory)
    server.attach(None)
    print(server.get_bound_port(), flush=True)
    loop = GLib.MainLoop()
    GLib.io_add_watch(GLib.IOChannel.unix_new(0), 0, GLib.IOCondition.HUP, lambda *_: loop.quit())
    loop.run()


main()
