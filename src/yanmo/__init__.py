"""yanmo 研墨: from raw Chinese text to a GPT that writes."""
