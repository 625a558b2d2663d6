"""Charts and styles that reports and web pages share."""
