"""Models for the page and for the clients of OpenAI's API."""
