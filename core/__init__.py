"""What every package stands on: it knows no data sets, models, scores or pages."""
