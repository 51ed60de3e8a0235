"""CPython's own tests of asyncio, put to the Janus loop."""
