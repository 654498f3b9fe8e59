"""Write the rules of deploy/prometheus as the Prometheus operator takes them, for `make docs`.

`python -m docs.prometheus_rules`. A kustomization can't do it: the rules are no resource.
"""

from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
RULES = REPOSITORY / "deploy/prometheus/rules"
MANIFEST = REPOSITORY / "deploy/kubernetes/components/monitoring/prometheus-rules.yaml"
HEAD = """\
# Generated from deploy/prometheus/rules by `make docs`.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: forward
spec:
  groups:
"""


def manifest() -> str:
    """Return the manifest with the groups of every file, as they are there."""
    groups = []
    for path in sorted(RULES.glob("*.yml"), reverse=True):  # what is recorded before the alerts
        lines = path.read_text().partition("\ngroups:\n")[2].splitlines()
        groups += [f"  {line}" if line else "" for line in lines]
    return HEAD + "\n".join(groups) + "\n"


if __name__ == "__main__":
    MANIFEST.write_text(manifest())
