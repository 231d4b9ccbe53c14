"""What people and analysers call the columns, in some languages: suggestions, never a reading.

Nothing is read under one of these names until somebody says so in a column map. They are offered
in messages, in the map that `inspect --write-map` writes, and tell a header from a title.
"""

import re
import unicodedata
from collections.abc import Mapping
from functools import cache
from typing import Final

_BY_NAME: Final[Mapping[str, str]] = {
    "VCD": """viable cell density; viable cell concentration; lebendzellzahl; lebendzelldichte;
        lebendzellkonzentration; vitale zelldichte; densidad de celulas viables;
        concentracion de celulas viables; densite de cellules viables;
        concentration cellulaire viable; celulas vivas; vivas""",
    "DCD": "dead cell density; dead cell concentration; totzelldichte; totzellzahl",
    "Via": "viability; viabilitaet; vitalitaet; viabilitat; vitalitat; viabilidad; viabilite",
    "Diam": """diameter; average diameter; avg diameter; avg diam; mean diameter; cell diameter;
        zelldurchmesser; durchmesser; diametro; diametro celular; diametre; diametre cellulaire""",
    "Glc": "glucose; gluc; glukose; glucosa; D-glucose",
    "Gln": "glutamine; glutamin; glutamina; L-glutamine",
    "Glu": "glutamate; glutamic acid; glutamat; glutaminsaeure; glutamato; acide glutamique",
    "Lac": "lactate; lactic acid; laktat; lactat; milchsaeure; lactato; acide lactique",
    "Amm": "ammonium; ammonia; NH4+; NH4; NH3; ammoniak; amonio; amoniaco; ammoniaque",
    "Pyr": "pyruvate; pyruvat; piruvato; pyruvic acid",
    "Titer": """titre; product; mAb; IgG; product titer; product concentration; antikoerper;
        produkttiter; titulo; produit; anticuerpo; anticuerpo monoclonal""",
    "osmolality": "osm; osmo; osmolalitaet; osmolalitat; osmolalidad; osmolalite",
    "DO": "dissolved oxygen; geloestsauerstoff; oxigeno disuelto; oxygene dissous",
    "temperature": "temp; temperatur; temperatura",
    "perfusion_rate": "perfusion; perfusionsrate; tasa de perfusion; taux de perfusion",
    "bleed_rate": "bleed; bleedrate; tasa de sangrado; taux de purge",
    "agitation": """stirring; stirrer speed; ruehrerdrehzahl; drehzahl; agitacion;
        vitesse d'agitation; rpm""",
    "volume_L": "working volume; arbeitsvolumen; volumen de trabajo; volume de travail",
    "day": "culture day; kulturtag; prozesstag; tag; dia; dia de cultivo; jour; jour de culture",
    "time_h": """time; elapsed time; culture time; EFT; elapsed fermentation time;
        fermentation time; cultivation time; process time; run time; batch time; culture age;
        kulturzeit; laufzeit; prozesszeit; hours;
        stunden; tiempo; tiempo en horas; zeit in stunden; temps""",
    "sampled_at": """date; datetime; date time; sample time; sample date; sampling time; timestamp;
        time stamp; datum; zeitstempel; probenahme; probenahmezeit; fecha; fecha y hora; horodatage;
        date et heure""",
    "time_of_day": "clock time; time of day; uhrzeit; hora del dia; heure",
    "run_id": """run; batch; batch id; culture; fermentation; cultivation; experiment; lauf;
        versuch; ansatz; lote; corrida; essai; lot""",
    "reactor_id": """reactor; bioreactor; fermenter; fermentor; vessel; reaktor; bioreaktor;
        gefaess; reacteur""",
    "clone_id": "clone; cell line; klon; zelllinie; clon; clona; linea celular; lignee cellulaire",
    "sample_id": """sample; sample name; sample no; probe; probenname; probennummer; muestra;
        echantillon""",
}
EXACT_WORDS: Final = {
    "viable cells/mL": "VCD",
    "viable cell conc": "VCD",
    "total viable cells/mL": "VCD",
    "live cells/mL": "VCD",
    "celulas viables/mL": "VCD",
    "cellules viables/mL": "VCD",
    "dead cells/mL": "DCD",
}
"""The same, where a word that is nearly this one is something else: a count without a volume."""
UNCLEAR_WORDS: Final = frozenset(
    "zelldichte zellzahl zellkonzentration celldensity cellconcentration cellcount cells zellen "
    "totalcelldensity totalcells gesamtzellzahl gesamtzelldichte gesamtzellkonzentration".split()
)
"""Cells of which nobody says whether they live: nothing is suggested for these."""
_REMARKS: Final = """comment; comments; remark; remarks; note; notes; operator; user; bemerkung;
    bemerkungen; kommentar; bearbeiter; notiz; comentario; observaciones; operador; commentaire;
    remarque; operateur; status; instrument; serial number; geraet; dilution; verduennung"""


def letters(word: str) -> str:
    """A word as it is compared: letters and digits, without accents or case."""
    plain = word.replace("\u00df", "ss").casefold()
    bare = "".join(c for c in unicodedata.normalize("NFKD", plain) if not unicodedata.combining(c))
    return re.sub(r"[^a-z0-9]", "", bare)


def _split(text: str) -> list[str]:
    return [" ".join(word.split()) for word in text.split(";")]


COMMON_WORDS: Final[dict[str, str]] = {
    word: name for name, text in _BY_NAME.items() for word in _split(text)
}
"""Our name by what people say. A raw count is nothing here: `Viable cells` is a number of cells as
often as a density."""


@cache
def remark_words() -> frozenset[str]:
    """What people call columns that are no measurement, as `letters` writes it."""
    return frozenset(letters(word) for word in _split(_REMARKS))
