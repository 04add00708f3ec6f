"""Right, wrong, or the same: answers, programs and candidates."""
