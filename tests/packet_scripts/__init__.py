"""Packet scripts: packetdrill's language, run against the TCP core in virtual time (docs/packet-scripts.md)."""
