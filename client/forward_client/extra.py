"""What only the extra `cli` installs: pictures, and tables in the terminal."""

MODULES = ("PIL", "rich")
INSTALL = "install forward-client with its extra, forward-client[cli]"
