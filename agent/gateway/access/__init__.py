"""Access control: authentication, allowed origins, rate limits and fair shares."""
