"""Tests against the kernel's own TCP across a veth pair: namespaces, real janusd, real clients.  They need
root."""
