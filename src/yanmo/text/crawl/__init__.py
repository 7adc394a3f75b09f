"""The crawler: a site, described by a profile, becomes a file of texts."""
