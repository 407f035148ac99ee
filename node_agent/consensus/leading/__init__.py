"""What a leader does for others: takes proposals, confirms reads (docs/adr/0070), hands the leadership over (docs/adr/0071)."""
