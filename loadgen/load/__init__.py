"""The load that one worker makes: users, pacing, keys, records."""
