"""One OCI distribution endpoint: its addresses, logins, transfers, and the choice of a platform."""
