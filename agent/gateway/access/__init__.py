"""Who may call, from where, how often, and how much at once."""
