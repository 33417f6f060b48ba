"""The error log and the access log, their files and what is escaped in them."""
