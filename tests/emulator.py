"""An emulated Cloud Storage on this machine, which gcsfs and TensorStore reach as the real one."""

import os
import socket
from contextlib import contextmanager, suppress

ENVIRONMENT = ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL")  # that lead to it


@contextmanager
def open_emulator(bucket):
    """Yields (address, downloads): the paths of the objects whose content was asked for, in order.

    Within the block this process and its children reach it, and `bucket` is there.
    """
    import fsspec
    import gcsfs
    from gcp_storage_emulator import server
    from gcp_storage_emulator.exceptions import NotFound

    downloads = []

    class Handler(server.RequestHandler):
        def do_GET(self):  # noqa: N802 - the name that the server calls
            path, _, query = self.path.partition("?")
            if "alt=media" in query or path.startswith("/download/"):
                downloads.append(server.unquote(path.rpartition("/o/")[2]))
            super().do_GET()

        def end_headers(self):
            """Content comes with its generation, which TensorStore wants and the emulator omits."""
            path, _, query = self.path.partition("?")
            if self.command == "GET" and "alt=media" in query:
                bucket, _, key = path.rpartition("/b/")[2].partition("/o/")
                with suppress(NotFound):
                    known = self.storage.get_file_obj(bucket, server.unquote(key))
                    self.send_header("x-goog-generation", known["generation"])
            super().end_headers()

    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    held = {name: os.environ.get(name) for name in ENVIRONMENT}
    address = f"http://localhost:{port}"
    os.environ.update(dict.fromkeys(ENVIRONMENT, address))
    plain, server.RequestHandler = server.RequestHandler, Handler
    emulator = server.create_server("localhost", port, in_memory=True, default_bucket=bucket)
    emulator.start()
    try:
        gcsfs.GCSFileSystem.clear_instance_cache()
        fsspec.register_implementation("gcs", gcsfs.GCSFileSystem, clobber=True)
        yield address, downloads
    finally:
        emulator.stop()
        server.RequestHandler = plain
        gcsfs.GCSFileSystem.clear_instance_cache()
        for name, value in held.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
