"""Teachers: from (episode, privileged state) to corrections, with the checks that decide which of them may train."""
