"""Tickets, runs and tables as repositories of the Hugging Face hub, each with a card."""
