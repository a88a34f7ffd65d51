"""Medians of lines of JSON on stdin, one value a line, and after them how many times the peer's frames/s tapeway decodes."""

import json
import sys
from statistics import median

values = {}
for line in sys.stdin:
    one = json.loads(line)
    key = (one["stage"], one["of"], one.get("peer", "tapeway"), one["metric"], one["unit"])
    values.setdefault(key, []).append((one["value"], one["runs"]))
for (stage, case, peer, metric, unit), all_of in values.items():
    value = median([value for value, _ in all_of])
    runs = sum(runs for _, runs in all_of)
    print(json.dumps({"stage": stage, "of": case, "peer": peer, "metric": metric, "value": value, "unit": unit, "runs": runs}))
for (stage, case, peer, metric, unit), all_of in values.items():
    own = values.get((stage, case, "tapeway", metric, unit))
    if peer != "tapeway" and metric == "frames_per_s" and own:
        pairs = [mine / theirs for (mine, _), (theirs, _) in zip(own, all_of)]
        print(json.dumps({"stage": stage, "of": case, "peer": peer, "metric": "ratio_to_peer", "value": round(median(pairs), 1), "unit": "ratio", "runs": len(pairs)}))
