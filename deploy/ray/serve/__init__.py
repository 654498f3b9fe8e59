"""The services of the server as an application of Ray Serve."""
