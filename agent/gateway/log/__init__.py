"""The durable log: group commits to the database, and a spool while it is unavailable."""
