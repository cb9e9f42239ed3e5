SELECT DISTINCT source, batch FROM replayed_letters
