"""Opens a saved text classifier by the code beside its weights, in a process without this package; prints JSON."""

import json
import sys

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

(folder,) = sys.argv[1:]
model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True).eval()
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
with torch.no_grad():
    logits = model(**tokenizer("A cat sat.", "the dog ran", return_tensors="pt")).logits
classify = pipeline("text-classification", model=folder, tokenizer=folder, trust_remote_code=True)
found = {
    "class": f"{type(model).__module__}.{type(model).__name__}",
    "package": "hf_geo" in sys.modules,
    "logits": logits[0].tolist(),
    "fixed": model.vectors.tolist(),
    "label": classify({"text": "A cat sat.", "text_pair": "the dog ran"})["label"],
}
print(json.dumps(found))
