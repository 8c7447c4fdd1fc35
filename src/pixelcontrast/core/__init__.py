"""What every other package stands on: types, errors, distribution, seeding, the EMA teacher."""
