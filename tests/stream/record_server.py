"""A media server that takes H.264 at /live: ``python record_server.py PORT [USER PASSWORD [PEM]]``.

For the system's Python, with GStreamer's RTSP server. It asks for digest authentication if there
is a user, and speaks TLS if there is a file with certificate and key. It prints its port, then
the width, height and pixels (base64 of BGR) of each frame. It ends when its standard input does.
"""

import base64
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gio, GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

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
    Gst.init(None)
    port, *login = sys.argv[1:]
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(LAUNCH)
    factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
    factory.connect("media-configure", configure)
    if login:
        role = "camera, media.factory.access=(boolean)true, media.factory.construct=(boolean)true"
        factory.add_role_from_structure(Gst.Structure.new_from_string(role))
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "camera")
        auth = GstRtspServer.RTSPAuth()
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        auth.add_digest(login[0], login[1], token)
        if len(login) > 2:
            auth.set_tls_certificate(Gio.TlsCertificate.new_from_file(login[2]))
        server.set_auth(auth)
    server.get_mount_points().add_factory("/live", factory)
    server.attach(None)
    print(server.get_bound_port(), flush=True)
    loop = GLib.MainLoop()
    GLib.io_add_watch(GLib.IOChannel.unix_new(0), 0, GLib.IOCondition.HUP, lambda *_: loop.quit())
    loop.run()


main()
