"""Every loss and miner once more, in slow and literal NumPy: loops over anchors, positives and negatives, float64.

A loss is a function (s, base, p, n, options) of cosines [B, B], the same cosines for weights that get no gradient, and
for each anchor the lists of its positives and negatives. A miner is a function (s, p, n, options) -> lists p, n.
"""

import numpy as np


def cosines(x):
    x = x / np.sqrt((x**2).sum(1))[:, None]
    return x @ x.T


def lists(labels, mask):
    rows = range(len(labels))
    p = [[j for j in rows if mask[i] and mask[j] and labels[i] == labels[j] and i != j] for i in rows]
    n = [[j for j in rows if mask[i] and mask[j] and labels[i] != labels[j]] for i in rows]
    return p, n


def far(s, distance):
    return np.sqrt(2 - 2 * s) if distance == "euclidean" else -s


def average(values):
    return sum(values) / len(values) if values else 0.0


def contrastive(s, base, p, n, o):
    sign = 1 if o["distance"] == "euclidean" else -1
    pull = [far(s[i, j], o["distance"]) - sign * o["positive_margin"] for i in range(len(s)) for j in p[i]]
    push = [sign * o["negative_margin"] - far(s[i, j], o["distance"]) for i in range(len(s)) for j in n[i]]
    return average([v for v in pull if v > 0]) + average([v for v in push if v > 0])


def triplet(s, base, p, n, o):
    found = []
    for i in range(len(s)):
        for j in p[i]:
            for k in n[i]:
                near, away = far(s[i, j], o["distance"]), far(s[i, k], o["distance"])
                if {"all": True, "hard": away <= near, "semihard": away > near}[o["choice"]]:
                    found.append(near - away + o["margin"])
    return average([v for v in found if v > 0])


def multi_similarity(s, base, p, n, o):
    rows = []
    for i in range(len(s)):
        pull = 1 + sum(np.exp(-o["alpha"] * (s[i, j] - o["base"])) for j in p[i])
        push = 1 + sum(np.exp(o["beta"] * (s[i, j] - o["base"])) for j in n[i])
        rows.append(np.log(pull) / o["alpha"] + np.log(push) / o["beta"])
    return average(rows)


def circle(s, base, p, n, o):
    rows, m, g = [], o["m"], o["gamma"]
    for i in range(len(s)):
        pull = sum(np.exp(-g * max(0, 1 + m - base[i, j]) * (s[i, j] - 1 + m)) for j in p[i])
        push = sum(np.exp(g * max(0, base[i, j] + m) * (s[i, j] - m)) for j in n[i])
        if p[i] and n[i]:
            rows.append(np.log(1 + pull * push))
    return average(rows)


def lifted_structure(s, base, p, n, o):
    sign = 1 if o["distance"] == "euclidean" else -1
    found = []
    for i in range(len(s)):
        for j in p[i]:
            ends = [(i, k) for k in n[i]] + [(j, k) for k in n[j]]
            push = sum(np.exp(sign * o["negative_margin"] - far(s[a, k], o["distance"])) for a, k in ends)
            pull = far(s[i, j], o["distance"]) - sign * o["positive_margin"]
            found.append(max(0, (np.log(push) if ends else 0) + pull) ** 2 / 2)
    return average(found) if any(n) else 0.0


def generalised_lifted(s, base, p, n, o):
    sign = 1 if o["distance"] == "euclidean" else -1
    rows = []
    for i in range(len(s)):
        pull = sum(np.exp(far(s[i, j], o["distance"]) - sign * o["positive_margin"]) for j in p[i])
        push = sum(np.exp(sign * o["negative_margin"] - far(s[i, j], o["distance"])) for j in n[i])
        rows.append(max(0, (np.log(pull) if p[i] else 0) + (np.log(push) if n[i] else 0)))
    return average(rows)


def nt_xent(s, base, p, n, o):
    t, found = o["temperature"], []
    for i in range(len(s)):
        negatives = sum(np.exp(s[i, k] / t) for k in n[i])
        found += [-np.log(np.exp(s[i, j] / t) / (np.exp(s[i, j] / t) + negatives)) for j in p[i]]
    return average(found) if any(n) else 0.0


def supcon(s, base, p, n, o):
    t, rows = o["temperature"], []
    for i in range(len(s)):
        everyone = sum(np.exp(s[i, k] / t) for k in p[i] + n[i])
        if p[i] and len(p[i] + n[i]) > 1:
            rows.append(average([-np.log(np.exp(s[i, j] / t) / everyone) for j in p[i]]))
    return average(rows) if any(n) else 0.0


def binned_ap(value, p, n, centres):
    width, total, found, seen = abs(centres[0] - centres[1]), 0.0, 0.0, 0.0
    for centre in centres:
        hits = sum(max(0, 1 - abs(value[j] - centre) / width) for j in p)
        found, seen = found + hits, seen + hits + sum(max(0, 1 - abs(value[j] - centre) / width) for j in n)
        total += hits * found / seen if seen > 0 else 0
    return total / len(p)


def fast_ap(s, base, p, n, o):
    centres = [4 * b / o["bins"] for b in range(o["bins"] + 1)]
    return average([1 - binned_ap(2 - 2 * s[i], p[i], n[i], centres) for i in range(len(s)) if p[i]])


def listwise_ap(s, base, p, n, o):
    centres = [1 - b / (o["bins"] - 1) for b in range(o["bins"])]
    return average([1 - binned_ap(np.clip(s[i], 0, 1), p[i], n[i], centres) for i in range(len(s)) if p[i]])


def smooth_ap(s, base, p, n, o):
    rows = []
    for i in [i for i in range(len(s)) if p[i]]:
        precisions = []
        for j in [i] + p[i]:
            above = {k: 1 / (1 + np.exp((s[i, j] - s[i, k]) / o["temperature"])) for k in [i] + p[i] + n[i] if k != j}
            among = 1 + sum(above[k] for k in [i] + p[i] if k != j)
            precisions.append(among / (1 + sum(above.values())))
        rows.append(1 - average(precisions))
    return average(rows)


def mined_multi_similarity(s, p, n, o):
    kept_p = [[j for j in p[i] if any(s[i, j] < s[i, k] + o["epsilon"] for k in n[i])] for i in range(len(s))]
    kept_n = [[k for k in n[i] if any(s[i, k] > s[i, j] - o["epsilon"] for j in p[i])] for i in range(len(s))]
    return kept_p, kept_n


def mined_pair_margin(s, p, n, o):
    sign = 1 if o["distance"] == "euclidean" else -1
    kept_p = [[j for j in p[i] if far(s[i, j], o["distance"]) > sign * o["positive"]] for i in range(len(s))]
    kept_n = [[k for k in n[i] if far(s[i, k], o["distance"]) < sign * o["negative"]] for i in range(len(s))]
    return kept_p, kept_n


def mined_easy_hard(s, p, n, o):
    first = {"hard": min, "easy": max, "semihard": min}
    kept_p, kept_n = [], []
    for i in range(len(s)):
        near, away = list(p[i]), list(n[i])
        if o["positive"] == "semihard" and away:
            away = [{"hard": max, "easy": min}[o["negative"]](away, key=lambda k: s[i, k])]
            near = [j for j in near if s[i, j] > s[i, away[0]]]
        if o["positive"] != "all" and near:
            near = [first[o["positive"]](near, key=lambda j: s[i, j])]
        if o["negative"] == "semihard" and near:
            away = [k for k in away if s[i, k] < s[i, near[0]]]
        if o["negative"] != "all" and away:
            away = [{"hard": max, "semihard": max, "easy": min}[o["negative"]](away, key=lambda k: s[i, k])]
        whole = "all" in (o["positive"], o["negative"]) or (near and away)
        kept_p.append(near if whole else [])
        kept_n.append(away if whole else [])
    return kept_p, kept_n
