"""How the server is run by others: Prometheus, Grafana, Kubernetes, KServe, Ray, proxies."""
