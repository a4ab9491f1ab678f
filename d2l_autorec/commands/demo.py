"""A page on this machine, with a trained model: ``python -m d2l_autorec.demo``."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Sequence
from http.server import HTTPServer
from importlib.util import find_spec

from ..errors import AutoRecError
from ..training import Setting
from . import cli

HOST = "127.0.0.1"
PORT = Setting(int, lambda n: 0 <= n < 2**16, "a port from 0 to 65535")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command, until it is interrupted."""
    parser = make_parser()
    args = parser.parse_flags(argv)
    if not find_spec("flask"):
        parser.error(
            "the page needs Flask: python -m pip install --constraint constraints.txt "
            "--editable '.[demo]'"
        )
    with _listen(args.port) as door:
        # Only now, so that --help and a bad flag need not wait for MXNet.
        from werkzeug.serving import make_server

        from ..serving import load_model
        from .page import make_page

        page = make_page(load_model(args.model))
        # Browsers keep connections open, and each needs a thread.
        server = make_server(HOST, 0, page, threaded=True, fd=door.fileno())
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # not each request
    print(f"http://{HOST}:{server.port}/ (Ctrl-C ends it)", flush=True)
    with server:
        # Werkzeug's own swallows what interrupts it.
        HTTPServer.serve_forever(server)


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise AutoRecError(f"port {port}: {reason}; --port takes another") from None


def make_parser() -> cli.Parser:
    """Make the parser of the flags."""
    port = cli.Kind("N", PORT.parse)
    where = {"--port": cli.flag("port of the page; 0 takes a free one", port, 8000)}
    return cli.Parser(
        prog="python -m d2l_autorec.demo",
        description="Show a page to rate items on, whose recommendations follow the "
        "ratings. The model is one that `python -m d2l_autorec.train --save DIR` has "
        "saved. The page listens on localhost only.",
        groups={"page": {**cli.MODEL, **where}},
    )
