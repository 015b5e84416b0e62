"""An RTSP camera of 64x48 at 25 a second: ``python rtsp_server.py USER PASSWORD``.

For the system's Python, with GStreamer's RTSP server. It asks for digest authentication and
prints its port, then the transport of each SETUP. It ends when its standard input does.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

LAUNCH = (
    "( videotestsrc is-live=true ! video/x-raw,width=64,height=48,framerate=25/1 "
    "! x264enc tune=zerolatency key-int-max=10 ! rtph264pay name=pay0 )"
)


def say_transport(_client, context):
    """Print what a client asks for."""
    print(context.request.get_header(GstRtsp.RTSPHeaderField.TRANSPORT, 0)[1], flush=True)


def main():
    """Serve until standard input ends."""
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service("0")
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(LAUNCH)
    factory.set_shared(True)
    role = "viewer, media.factory.access=(boolean)true, media.factory.construct=(boolean)true"
    factory.add_role_from_structure(Gst.Structure.new_from_string(role))
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    auth = GstRtspServer.RTSPAuth()
    auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
    auth.add_digest(sys.argv[1], sys.argv[2], token)
    server.set_auth(auth)
    server.get_mount_points().add_factory("/live", factory)
    server.connect("client-connected", lambda _, c: c.connect("setup-request", say_transport))
    server.attach(None)
    print(server.get_bound_port(), flush=True)
    loop = GLib.MainLoop()
    GLib.io_add_watch(GLib.IOChannel.unix_new(0), 0, GLib.IOCondition.HUP, lambda *_: loop.quit())
    loop.run()


main()
