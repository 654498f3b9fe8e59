"""Server: the forward pass of a bundle over gRPC."""
