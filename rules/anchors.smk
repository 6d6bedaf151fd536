rule list_anchors:
    input:
        survey="results/survey.json",
        lenses="results/catalogue/lenses.json",
        lists=anchor_lists(),
        code=code("dark_halo_scope.catalogue.anchors", "spark"),
    output:
        "results/anchors/list.json",
    log:
        "logs/list_anchors.log",
    benchmark:
        "benchmarks/list_anchors.tsv"
    conda:
        "../envs/spark.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=240,
    params:
        settings=settings("survey", "anchors"),
    message:
        "Listing the known lenses that the survey has images of"
    shell:
        "exec python -m dark_halo_scope.catalogue.anchors --survey {input.survey} --lenses {input.lenses}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"


rule fetch_cutouts:
    input:
        survey="results/survey.json",
        anchors="results/anchors/list.json",
        code=code("dark_halo_scope.images.fetch_cutouts", "spark"),
    output:
        "results/anchors/cutouts.json",
    log:
        "logs/fetch_cutouts.log",
    benchmark:
        "benchmarks/fetch_cutouts.tsv"
    # Where the workflow runs: compute nodes often have no internet, and only one process may ask a host at a time.
    localrule: True
    conda:
        "../envs/spark.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=720,
        # No param: results do not depend on it.
        asking=settings("survey", "asking"),
    params:
        settings=settings("survey", "cutouts"),
    message:
        "Fetching the anchors' cutouts, one at a time"
    # The cache lies outside of `output:`, which Snakemake deletes before a rerun.
    shell:
        "exec python -m dark_halo_scope.images.fetch_cutouts --list {input.anchors} --survey {input.survey}"
        " --settings {params.settings:q} --asking {resources.asking:q} --cache results/anchors/cutout_cache"
        " --output {output} 2> >(tee {log} >&2)"
