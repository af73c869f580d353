"""Sockets only: accepting with caps, TLS and certificates, streams read message by message and then pumped."""
