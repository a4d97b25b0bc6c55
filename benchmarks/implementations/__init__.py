"""One file a library, each with ``prepare``, ``run`` and ``output``. See ../README.md."""
