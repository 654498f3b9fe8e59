"""What only the extra `cli` installs: pictures, and tables in the terminal."""

MODULES = ("PIL", "rich")
INSTALL = "pip install 'forward-client[cli]'"
