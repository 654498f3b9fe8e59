"""What the commands print: tables, bars and pictures, or JSON. Needs the extra `cli`."""
