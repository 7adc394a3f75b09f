"""yanmo 研墨: from raw Chinese text to a GPT-2 that writes."""
