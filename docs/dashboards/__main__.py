"""Write the dashboards of deploy/grafana/: `python -m docs.dashboards`, run by `make docs`."""

from docs.dashboards import FOLDER, files


def main() -> None:
    """Write them."""
    for name, text in files().items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
