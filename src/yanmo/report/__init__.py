"""What a run was: as a page (report.html), beside others, and as a picture for papers."""
