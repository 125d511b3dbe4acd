"""From runs over several seeds to a judgement: quantities, their intervals, and what chance makes of many."""
