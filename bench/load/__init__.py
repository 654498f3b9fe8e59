"""What loads and observes a server from the outside."""
