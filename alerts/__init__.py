"""Deciding and acting: policy, incidents, delivery, rollback, and the ledger of all of it."""
