"""The viewer: the recorded debates of a run as one page that needs nothing but a browser."""
