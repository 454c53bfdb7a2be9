"""The mail adapter: what a mail says (`messages`) and how it travels (`smtp`)."""
