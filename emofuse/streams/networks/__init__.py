"""Networks that streams run, on torch. A stream's own file imports them only when the stream is made or runs."""
