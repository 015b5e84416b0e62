"""An RTSP camera of 64x48 at 25 a second: ``python rtsp_server.py USER PASSWORD``.

For the system's Python, with GStreamer's RTSP server. It asks for digest authentication and
prints its port, then the transport of each SETUP. It ends when its standard input does.
"""

import sys

from gst_rtsp import GstRtsp, ask_for_login, make_server, serve

LAUNCH = (
    "( videotestsrc is-live=true ! video/x-raw,width=64,height=48,framerate=25/1 "
    "! x264enc tune=zerolatency key-int-max=10 ! rtph264pay name=pay0 )"
)


def say_transport(_client, context):
    """Print what a client asks for."""
    print(context.request.get_header(GstRtsp.RTSPHeaderField.TRANSPORT, 0)[1], flush=True)


def main():
    """Serve until standard input ends."""
    server, factory = make_server("0", LAUNCH)
    factory.set_shared(True)
    ask_for_login(server, factory, *sys.argv[1:])
    server.connect("client-connected", lambda _, c: c.connect("setup-request", say_transport))
    serve(server)


main()
